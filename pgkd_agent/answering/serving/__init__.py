"""A student over HTTP; needs the extra 'serve'."""
