"""Runs side by side: what differs, what came out, and how sure that is. Reads folders, draws a page; trains nothing."""
