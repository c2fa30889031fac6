"""Files for people: curves, tables by class, predictions, results. It loads without torch."""
