"""Training: paired batches, losses, one loop for every model, and the runs of the study.

Importing this room makes the backbone `fwstudy_small` known to timm.
"""

from fwstudy.training import backbone as backbone
