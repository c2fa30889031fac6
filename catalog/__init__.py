"""What the user brings: tables, columns, label space, targets, image files. It loads without torch."""
