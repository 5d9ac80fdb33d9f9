"""nflib: base models, bit errors and generators for a reproducible study of NeuralFuse.

Modules that compute, in an order to read them in: quantize (weights as codes), faults (error models, and bits flipped in
codes), models, generators and adapters (networks), training (base models), eopm (generators: Eq. 3 and distillation), evaluation
(accuracy over error patterns); beside these data, augment, shifts, mitigations, damage and energy.
`nflib.study` remembers what was measured, `nflib.report` shows it; `cli` is the command line.
"""


def load(name: str, **how: object):
    """A published model, ready to use: "desk/cifar10/vgg11" (a base model) or "desk/cifar10/vgg11/conv_l" (a generator).

    See `nflib.study.trained.load`, which needs torch and is imported only here.
    """
    from nflib.study import trained

    return trained.load(name, **how)
