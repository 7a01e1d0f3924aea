"""Reports: one HTML file about one or more runs."""
