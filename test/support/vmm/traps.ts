/** Where the traps of a hypervisor are, in its state dir. */
export const TRAP_FILE = 'traps';
