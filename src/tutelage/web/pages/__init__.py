"""One file a page or a small family of pages: its GETs, its fragments and its own actions."""
