"""Tables, plots and pages; nothing here changes a number."""
