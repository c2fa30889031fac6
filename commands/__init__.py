"""Chapters of the commands that are too long for their scripts. They read the flags, so only a command can use them."""
