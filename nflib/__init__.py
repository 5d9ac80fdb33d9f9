"""nflib: base models, bit errors and generators for a reproducible study of NeuralFuse."""


def load(name: str, **how: object):
    """A published model, ready to use: "desk/cifar10/vgg11" (a base model) or "desk/cifar10/vgg11/conv_l" (a generator).

    See `nflib.study.trained.load`, which needs torch and is imported only here.
    """
    from nflib.study import trained

    return trained.load(name, **how)
