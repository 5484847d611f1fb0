"""How well the measure of fit tells pictures that the model carries from others."""
