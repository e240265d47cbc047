"""Who is next: the smallest of many keys, after every change of one of them."""
