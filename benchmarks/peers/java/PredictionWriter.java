import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * Writes predictions of the benchmark as JSON, with scores as eight decimals: what java.lang.Float would do takes longer
 * than the rest. Used by one thread.
 */
final class PredictionWriter {
    private static final int DECIMALS = 8;
    private static final int ONE = 100_000_000;
    private static final byte[] SOURCE = bytes("{\"source\":[");
    private static final byte[] SCORE = bytes(",\"score\":");
    private static final byte[] SCORES = bytes(",\"scores\":[");
    private static final byte[] FLAGGED = bytes(",\"flagged\":true}");
    private static final byte[] PASSED = bytes(",\"flagged\":false}");

    private final byte[] names;
    /** A score takes at most twenty bytes. */
    private final byte[] text = new byte[1024];
    private int at;

    PredictionWriter(String model, String version) {
        names = bytes("],\"model\":\"" + model + "\",\"model_version\":\"" + version + "\",\"id\":");
    }

    byte[] write(int partition, long offset, long id, float score, boolean flagged) {
        begin(partition, offset, id);
        put(SCORE);
        put(score);
        put(flagged ? FLAGGED : PASSED);
        return Arrays.copyOf(text, at);
    }

    byte[] write(int partition, long offset, long id, float[] scores) {
        begin(partition, offset, id);
        put(SCORES);
        for (float score : scores) {
            put(score);
            text[at++] = ',';
        }
        text[at - 1] = ']';
        text[at++] = '}';
        return Arrays.copyOf(text, at);
    }

    private void begin(int partition, long offset, long id) {
        at = 0;
        put(SOURCE);
        put(partition);
        text[at++] = ',';
        put(offset);
        put(names);
        put(id);
    }

    private void put(float score) {
        long scaled = Math.round(Math.abs((double) score) * ONE);
        if (score < 0) {
            text[at++] = '-';
        }
        put(scaled / ONE);
        text[at++] = '.';
        at += DECIMALS;
        putDigits(scaled % ONE, DECIMALS);
    }

    private void put(byte[] part) {
        System.arraycopy(part, 0, text, at, part.length);
        at += part.length;
    }

    private void put(long number) {
        int digits = 1;
        for (long rest = number; rest >= 10; rest /= 10) {
            digits++;
        }
        at += digits;
        putDigits(number, digits);
    }

    /** Writes the digits that end where `at` is now. */
    private void putDigits(long number, int digits) {
        long rest = number;
        for (int place = at - 1; place >= at - digits; place--) {
            text[place] = (byte) ('0' + rest % 10);
            rest /= 10;
        }
    }

    private static byte[] bytes(String ascii) {
        return ascii.getBytes(StandardCharsets.US_ASCII);
    }
}
