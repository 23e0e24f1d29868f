"""FCMAE pre-training: its training, its pictures, its report."""
