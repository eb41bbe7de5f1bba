"""f_theta: the classifier with its normalisation inside, its backbones, pretrained weights and
checkpoints.
"""
