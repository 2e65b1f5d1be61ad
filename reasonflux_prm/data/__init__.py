"""Files that ship with the package: the sample traces of `reasonflux-prm demo`."""
