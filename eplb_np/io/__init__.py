"""Files of loads and plans. One module for each kind of file."""
