"""What runs inside the sandbox to test a program: the standard library is all it may import.

Two processes. The *runner* holds the tests and says how they went. The *candidate* holds the program that a model
wrote, and nothing else that is worth having. The program's functions are called across a pipe, and plain values come
back, so that the program can neither read the tests, nor decide what `==` means, nor print the verdict.
"""
