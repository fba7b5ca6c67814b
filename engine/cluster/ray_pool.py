"""TODO"""


def start(a, b, c):
    raise NotImplementedError
