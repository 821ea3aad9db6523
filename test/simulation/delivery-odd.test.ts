import { describe } from 'vitest';
import { testDelivery } from './delivery.ts';

describe('Session on a simulated network', () => testDelivery(1));
