"""Contrastive models: images and texts described in one space."""
