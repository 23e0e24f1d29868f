"""FCMAE pre-training: its training, its pictures and its report."""
