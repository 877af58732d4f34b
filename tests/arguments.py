"""What a constructor takes, also where it hands on the rest to its base."""

import inspect


def arguments_of(target):
    """Names of the arguments of a function, or of a class and the bases that its `**rest` goes to.

    With "**" where the rest goes to nobody that has names for it: anything is taken.
    """
    names = set()
    for owner in inspect.getmro(target) if inspect.isclass(target) else [target]:
        if owner is object or (inspect.isclass(owner) and "__init__" not in vars(owner)):
            continue
        parameters = inspect.signature(owner).parameters.values()
        rest = {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
        names |= {parameter.name for parameter in parameters if parameter.kind not in rest}
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            break
    else:
        names.add("**")
    return names
