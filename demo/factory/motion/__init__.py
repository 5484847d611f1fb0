"""Motion of the drawn figure: mouth from phones, hands and signs of life from small generators."""
