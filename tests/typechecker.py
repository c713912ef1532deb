"""beartype, with an int where a float is asked for: YAML writes 5 for 5.0."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
