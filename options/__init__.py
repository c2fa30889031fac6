"""Every command-line flag, once, and the YAML files that can hold them. It loads without torch."""
