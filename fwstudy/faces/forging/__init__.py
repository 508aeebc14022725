"""The four families of forgeries, and single parts."""
