"""The experiments of papers, made again with the library; none of it is in the wheel."""
