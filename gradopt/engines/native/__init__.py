"""The step of an optimiser, printed as C and compiled by the compiler of the machine."""
