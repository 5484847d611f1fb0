// The mark that says by machine that a model made a picture: the IPTC's digital source type as XMP in a JPEG.

const HEADER = "http://ns.adobe.com/xap/1.0/\0";
const XMP =
  '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">' +
  '<rdf:Description xmlns:i="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" i:DigitalSourceType=' +
  '"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/></rdf:RDF></x:xmpmeta>';

/**
 * @param {Blob} jpeg
 * @returns {Promise<Blob>} the JPEG with the mark, behind its JFIF header
 */
export async function markedAsGenerated(jpeg) {
  const head = new DataView(await jpeg.slice(0, 20).arrayBuffer());
  const at = head.getUint16(2) === 0xffe0 ? 4 + head.getUint16(4) : 2;
  const content = new TextEncoder().encode(HEADER + XMP);
  const segment = new DataView(new ArrayBuffer(4));
  segment.setUint16(0, 0xffe1);
  segment.setUint16(2, 2 + content.length);
  return new Blob([jpeg.slice(0, at), segment, content, jpeg.slice(at)], { type: "image/jpeg" });
}
