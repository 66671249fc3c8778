"""How the losses of source and target make one; one objective a file."""
