"""EchoMimic-v2's own weights: found where they are, fetched where they are missing (`--model official`).

catalogue  the files, their sources and their licences
search     files that are on this machine already
hub        facts and contents of files from the Hugging Face Hub
download   one file: resumed, its sum checked, then moved into its place
progress   a bar on a terminal, lines elsewhere
licences   the question, and the file that remembers the answer
machine    how fast this machine would be
samples    the official sample portrait and pose
folder     the folder of links that the model's configuration lies in
prepare    all of it in order
"""
