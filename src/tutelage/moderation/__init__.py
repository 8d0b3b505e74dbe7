"""The content filter: what a text is, whether it may be shown, and how the filter learns. No torch."""
