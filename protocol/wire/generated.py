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
