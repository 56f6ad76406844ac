"""Runs in a browser: what came of each, what the teacher wrote, and a person's word on it; needs the extra 'serve'."""
