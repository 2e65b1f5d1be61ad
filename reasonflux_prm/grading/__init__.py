"""Final answers: where a text states one, and whether it is right."""
