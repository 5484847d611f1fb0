"""How the bundled model was made: figures, speech, motion, training, evaluation."""
