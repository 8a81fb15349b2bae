"""The checker that the test run puts on every annotated function of the library: shapes by jaxtyping, types by beartype."""

from beartype import BeartypeConf, beartype

# an int where a float is wanted is no mistake (PEP 484)
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
