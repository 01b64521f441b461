"""HOW training or calibration gets there: one paper, one file. Formats exported here are found by recipes and stages."""

__all__: list[str] = []
