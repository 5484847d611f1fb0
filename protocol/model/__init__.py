"""The parts of a model that two stages must read alike.

config        the model's configuration file
checkpoint    weights files into modules
vae_folder    a VAE's folder, for both of its halves
assets        avatars and poses: files, names
pictures      reads a picture, for the page and for the model
colours       modes, depths and profiles of pictures
audio_tokens  the Whisper features that each frame attends to
lfs_pointer   files that Git LFS has not fetched
file_damage   files that are cut off, or hold something else
cpu_graph     networks that OpenVINO runs on a CPU
kept_folder   the folder of files that one start makes for the next
hardware      devices, dtypes, threads, memory
"""
