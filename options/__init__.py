"""Every command-line flag, once, and the YAML files that can hold them. It loads without torch."""

from runtime.failed_start import report_failed_start

report_failed_start()  # here, as each script imports this package before any that can be missing
