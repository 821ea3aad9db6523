import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { formatIp, parseIp } from '../../src/address.ts';
import { codeOf, ProtocolError } from '../../src/errors.ts';
import { SMALL_PAYLOAD_BYTES_MAX } from '../../src/frame/limits.ts';
import {
  decodeOffer,
  encodeOffer,
  isOfferable,
  OFFERED_ADDRESSES_MAX,
} from '../../src/frame/offer.ts';

const OFFER = { addresses: ['10.1.0.2', 'fd00:1::2', '192.168.7.9'], port: 7700 };

const addresses = fc
  .oneof(
    fc.uint8Array({ minLength: 4, maxLength: 4 }),
    fc.uint8Array({ minLength: 16, maxLength: 16 }),
  )
  .filter(isOfferable)
  .map(formatIp);

/** An offer of one address, whatever it is. */
function offerOf(text: string): Uint8Array {
  const bytes = parseIp(text)!;
  return Uint8Array.of(1, 0, 1, bytes.length === 4 ? 4 : 6, ...bytes);
}

describe('encodeOffer()', () => {
  test('has the layout of the protocol', () => {
    expect([...encodeOffer({ addresses: ['10.1.0.2', 'fd00::2'], port: 0x1234 })]).toEqual([
      ...[0x34, 0x12, 2],
      ...[4, 10, 1, 0, 2],
      ...[6, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
    ]);
  });

  test('writes IPv4 as IPv4', () => {
    const bytes = encodeOffer({ addresses: ['::ffff:10.1.0.2'], port: 1 });
    expect(decodeOffer(bytes).addresses).toEqual(['10.1.0.2']);
  });

  test('refuses what would not be read', () => {
    const many = Array.from({ length: OFFERED_ADDRESSES_MAX + 1 }, (_, index) => `10.0.0.${index}`);
    expect(() => encodeOffer({ ...OFFER, addresses: many })).toThrow(
      'at most 32 addresses, not 33',
    );
    expect(() => encodeOffer({ ...OFFER, addresses: ['127.0.0.1'] })).toThrow('"127.0.0.1"');
    expect(() => encodeOffer({ ...OFFER, addresses: ['dst'] })).toThrow('"dst"');
    for (const port of [0, 65536, 1.5, Number.NaN]) {
      expect(() => encodeOffer({ ...OFFER, port })).toThrow(`not ${port}`);
    }
  });
});

describe('decodeOffer()', () => {
  test('reads what was written', () => {
    const lists = fc.array(addresses, { maxLength: OFFERED_ADDRESSES_MAX });
    fc.assert(
      fc.property(lists, fc.integer({ min: 1, max: 65535 }), (list, port) => {
        const bytes = encodeOffer({ addresses: list, port });
        expect(bytes.length).toBeLessThanOrEqual(SMALL_PAYLOAD_BYTES_MAX);
        expect(decodeOffer(bytes)).toEqual({ addresses: list, port });
      }),
    );
  });

  test('reads an offer of nothing', () => {
    expect(decodeOffer(encodeOffer({ addresses: [], port: 65535 }))).toEqual({
      addresses: [],
      port: 65535,
    });
  });

  test('refuses every part of an offer, and one that goes on', () => {
    const bytes = encodeOffer(OFFER);
    for (let end = 0; end < bytes.length; end++) {
      expect(() => decodeOffer(bytes.subarray(0, end)), `${end} bytes`).toThrow(ProtocolError);
    }
    expect(() => decodeOffer(Uint8Array.of(...bytes, 0))).toThrow('bytes for 3 addresses');
  });

  test.each([
    ['port 0', encodeOffer(OFFER).with(0, 0).with(1, 0), 'port 0'],
    ['more addresses than are there', encodeOffer(OFFER).with(2, 4), 'that is missing'],
    ['fewer addresses than are there', encodeOffer(OFFER).with(2, 2), 'bytes for 2 addresses'],
    ['33 addresses', encodeOffer(OFFER).with(2, 33), '33 addresses'],
    ['another family', encodeOffer(OFFER).with(3, 5), 'family 5 at byte 3'],
    ['no family', encodeOffer(OFFER).with(3, 0), 'family 0 at byte 3'],
  ])('refuses %s', (_what, bytes, why) => {
    expect(() => decodeOffer(bytes)).toThrow(why);
    expect(() => decodeOffer(bytes)).toThrow(ProtocolError);
  });

  test.each([
    '0.0.0.0',
    '0.1.2.3',
    '127.0.0.1',
    '127.255.255.255',
    '169.254.1.1',
    '224.0.0.1',
    '239.255.255.255',
    '255.255.255.255',
    '::',
    '::1',
    '::7f00:1',
    'fe80::1',
    'febf::1',
    'ff02::1',
  ])('refuses %s, which another host cannot use', (address) => {
    expect(() => decodeOffer(offerOf(address))).toThrow(`${address}, which is not for another`);
    expect(() => encodeOffer({ addresses: [address], port: 1 })).toThrow(RangeError);
  });

  test('refuses IPv4 that is written as IPv6', () => {
    const mapped = Uint8Array.of(1, 0, 1, 6, ...Array(10).fill(0), 0xff, 0xff, 10, 0, 0, 1);
    expect(() => decodeOffer(mapped)).toThrow('which is not for another host');
  });

  test.each(['1.0.0.1', '126.255.255.255', '128.0.0.1', '169.253.1.1', '223.255.255.255'])(
    'accepts %s',
    (address) => {
      expect(decodeOffer(offerOf(address)).addresses).toEqual([address]);
    },
  );

  test.each(['::1:0:0:1', 'fe00::1', 'fec0::1', 'fdff::1', '2001:db8::1'])(
    'accepts %s',
    (address) => {
      expect(decodeOffer(offerOf(address)).addresses).toEqual([address]);
    },
  );

  test('either refuses bytes with its code, or they are what it would write', () => {
    const mended = fc
      .tuple(fc.uint8Array({ maxLength: 40 }), fc.constantFrom(1, 2), fc.constantFrom(4, 6))
      .map(([bytes, count, family]) => Uint8Array.of(1, 0, count, family, ...bytes));
    fc.assert(
      fc.property(fc.oneof(mended, fc.uint8Array({ maxLength: 60 })), (bytes) => {
        let offer: ReturnType<typeof decodeOffer>;
        try {
          offer = decodeOffer(bytes);
        } catch (error) {
          expect(codeOf(error)).toBe('ERR_FRAME_OFFER');
          return;
        }
        expect(encodeOffer(offer)).toEqual(bytes);
      }),
      { numRuns: 1000 },
    );
  });
});
