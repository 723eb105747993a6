"""Which parameters are scaling factors λ: they are found by name, everywhere by this rule."""

import re


def is_lambda(name: str, lambda_name: str = 'lambda') -> bool:
    """Whether a parameter of this name is λ: the name contains ``lambda_name``.

    The name that Gluon gives to a block, its class and a number, does not count: in a class ``LambdaNet``,
    ``lambdanet0_conv0_weight`` is a weight, and ``lambdanet0_lambda`` is λ.
    """
    if lambda_name not in name:
        return False
    *blocks, own = name.split('_')
    named_by_class = re.compile(rf'(?!{re.escape(lambda_name)}\d+$)[a-z]*{re.escape(lambda_name)}[a-z]*\d+')
    return lambda_name in '_'.join([*(word for word in blocks if not named_by_class.fullmatch(word)), own])
