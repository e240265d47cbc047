"""Files: loads in, plans in and out. One module for each kind of file."""
