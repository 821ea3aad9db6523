import type { PathAddress } from '../address.ts';
import { PagelaneError } from '../errors.ts';
import { Fields, type FieldsOptions } from './fields.ts';
import { CONTROL_VERSION, HOST_CHARACTERS_MAX, PORT_MAX } from './limits.ts';

/*
 * A request is one line of JSON:
 *
 *   {"v":1,"verb":"report"}
 *   {"v":1,"verb":"addPath","address":{"host":"10.2.0.2","port":7700,"local":"10.2.0.1"}}
 *   {"v":1,"verb":"removePath","path":1}
 *   {"v":1,"verb":"setMaxBandwidth","bytesPerSecond":25000000}
 *   {"v":1,"verb":"setMaxBandwidth","bytesPerSecond":null,"path":1}
 *   {"v":1,"verb":"setStageBandwidth","bytesPerSecond":25000000,"intermediary":0}
 */

/** What is asked of the process that has a session. */
export type ControlRequest =
  | { readonly verb: 'report' }
  | { readonly verb: 'addPath'; readonly address: PathAddress }
  | { readonly verb: 'removePath'; readonly path: number }
  | {
      readonly verb: 'setMaxBandwidth';
      /** No limit if undefined. */
      readonly bytesPerSecond: number | undefined;
      /** Id of the path that is limited; the session if undefined. */
      readonly path: number | undefined;
    }
  | {
      readonly verb: 'setStageBandwidth';
      /** No limit if undefined. */
      readonly bytesPerSecond: number | undefined;
      /** Place of the intermediary that is limited, from 0; all together if undefined. */
      readonly intermediary: number | undefined;
    };

const OPTIONS: FieldsOptions = { what: 'request', code: 'ERR_CONTROL_REQUEST' };

/** Writes a request as one line. */
export function encodeRequest(request: ControlRequest): string {
  const fields: Record<string, unknown> = { v: CONTROL_VERSION, ...request };
  if ('bytesPerSecond' in request) fields['bytesPerSecond'] ??= null;
  return `${JSON.stringify(fields)}\n`;
}

/**
 * Reads a request.
 *
 * @param line Without its end.
 * @throws {PagelaneError} ERR_CONTROL_VERB If it asks for something that there is not.
 * @throws {PagelaneError} ERR_CONTROL_REQUEST If anything else is wrong with it.
 */
export function parseRequest(line: string): ControlRequest {
  const fields = Fields.parse(line, OPTIONS);
  fields.version(CONTROL_VERSION);
  const request = readRequest(fields.text('verb'), fields);
  fields.end();
  return request;
}

function readRequest(verb: string, fields: Fields): ControlRequest {
  switch (verb) {
    case 'report':
      return { verb };
    case 'addPath':
      return { verb, address: readAddress(fields.object('address')) };
    case 'removePath':
      return { verb, path: fields.whole('path') };
    case 'setMaxBandwidth': {
      const bytesPerSecond = readRate(fields);
      const path = fields.optional('path', () => fields.whole('path'));
      return { verb, bytesPerSecond, path };
    }
    case 'setStageBandwidth': {
      const bytesPerSecond = readRate(fields);
      const intermediary = fields.optional('intermediary', () => fields.whole('intermediary'));
      return { verb, bytesPerSecond, intermediary };
    }
    default:
      throw new PagelaneError(
        'ERR_CONTROL_VERB',
        `There is no verb ${JSON.stringify(verb.slice(0, 40))}: ` +
          'expected report, addPath, removePath, setMaxBandwidth or setStageBandwidth',
      );
  }
}

/** Bytes per second; undefined for no limit. */
function readRate(fields: Fields): number | undefined {
  const isOff = fields.isNull('bytesPerSecond');
  return isOff ? undefined : fields.whole('bytesPerSecond', { min: 1 });
}

function readAddress(fields: Fields): PathAddress {
  const host = readHost(fields, 'host');
  const port = fields.whole('port', { max: PORT_MAX });
  const local = fields.optional('local', () => readHost(fields, 'local'));
  const cap = fields.optional('maxBytesPerSecond', () =>
    fields.whole('maxBytesPerSecond', { min: 1 }),
  );
  fields.end();
  return {
    host,
    port,
    ...(local !== undefined && { local }),
    ...(cap !== undefined && { maxBytesPerSecond: cap }),
  };
}

/** A name or an address: what is neither is found out when it is dialled. */
function readHost(fields: Fields, name: string): string {
  const host = fields.text(name, { charactersMax: HOST_CHARACTERS_MAX });
  if (/^[^\s\p{Cc}]+$/u.test(host)) return host;
  throw new PagelaneError(OPTIONS.code, `Cannot read request: "${name}" must be a host`);
}
