import type { RamLayout } from '../page/block.ts';
import { viewOf } from './bytes.ts';
import { EOS_BYTES, FOOTER_BYTES, PART_HEADER_BYTES, RamFlag, SectionType } from './format.ts';

/*
 * The borders of a RAM section
 */

type RamSection = Pick<RamLayout, 'sectionId' | 'hasFooter'>;

/** What opens a RAM section: a PART, or the END. */
export function sectionHead({ sectionId }: RamSection, type: number): Uint8Array {
  const bytes = new Uint8Array(PART_HEADER_BYTES);
  bytes[0] = type;
  viewOf(bytes).setUint32(1, sectionId);
  return bytes;
}

/** What closes one: the end mark, and the footer if the stream has footers. */
export function sectionEnd({ sectionId, hasFooter }: RamSection): Uint8Array {
  const bytes = new Uint8Array(EOS_BYTES + (hasFooter ? FOOTER_BYTES : 0));
  bytes[EOS_BYTES - 1] = RamFlag.Eos;
  if (hasFooter) {
    bytes[EOS_BYTES] = SectionType.Footer;
    viewOf(bytes).setUint32(EOS_BYTES + 1, sectionId);
  }
  return bytes;
}
