"""The page in the browser: its files in `static`, and what its endpoints answer."""
