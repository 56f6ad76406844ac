"""Algorithm 1 of the paper, without torch, LangChain or files: what it is made of, and the loop itself."""
