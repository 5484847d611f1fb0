"""The mark that says by machine that a model made pictures: the IPTC's digital source type as XMP."""

from __future__ import annotations

#: https://cv.iptc.org/newscodes/digitalsourcetype/
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
#: A whole packet of XMP.
GENERATED_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:i="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" i:DigitalSourceType='
    f'"{DIGITAL_SOURCE_TYPE}"/></rdf:RDF></x:xmpmeta>'
).encode()
#: Names XMP where formats name contents by UUID (XMP Specification Part 3, 1.2.7.3).
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
#: The packet as a box that may stand at the end of an MP4.
XMP_BOX = (24 + len(GENERATED_XMP)).to_bytes(4, "big") + b"uuid" + XMP_UUID + GENERATED_XMP
#: Tags for films, which people read too.
GENERATED_TAGS = {
    "comment": f"AI-generated face, made by echomimic-live. DigitalSourceType: {DIGITAL_SOURCE_TYPE}"
}
