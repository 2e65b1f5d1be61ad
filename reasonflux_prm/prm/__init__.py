"""Process reward models: decoder, input encoding, one small file for each released family, the embedded PRM."""
