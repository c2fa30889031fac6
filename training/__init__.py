"""One training run, from its data to last.pth.tar."""
