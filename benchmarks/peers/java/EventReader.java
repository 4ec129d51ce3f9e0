import java.nio.FloatBuffer;
import java.nio.charset.StandardCharsets;

/**
 * Reads events of the benchmark, {"id": number, "features": [numbers]} with the fields in any order, without making an
 * object for any part of them. Used by one thread.
 */
final class EventReader {
    /** Powers of ten that a double holds exactly. */
    private static final double[] TEN = new double[23];

    static {
        TEN[0] = 1;
        for (int power = 1; power < TEN.length; power++) {
            TEN[power] = TEN[power - 1] * 10;
        }
    }

    /** More digits may not fit a long. */
    private static final int MOST_DIGITS = 18;

    private byte[] text;
    private int at;

    /** Appends the features to `features` and returns the id. Raises IllegalArgumentException. */
    long read(byte[] value, FloatBuffer features) {
        text = value;
        at = 0;
        long id = -1;
        boolean found = false;
        expect('{');
        do {
            int name = skipString();
            expect(':');
            switch (text[name]) {
                case 'i' -> id = (long) number();
                case 'f' -> {
                    numbers(features);
                    found = true;
                }
                default -> throw wrong("an unknown field");
            }
        } while (more('}'));
        if (id < 0 || !found) {
            throw wrong("no id or no features");
        }
        return id;
    }

    private void numbers(FloatBuffer features) {
        expect('[');
        do {
            features.put((float) number());
        } while (more(']'));
    }

    private double number() {
        byte next = skipSpace();
        int start = at;
        boolean negative = next == '-';
        if (negative) {
            at++;
        }
        long digits = 0;
        int count = 0;
        int exponent = 0;
        while (isDigit(text[at])) {
            digits = digits * 10 + (text[at++] - '0');
            count++;
        }
        if (text[at] == '.') {
            int point = ++at;
            while (isDigit(text[at])) {
                digits = digits * 10 + (text[at++] - '0');
                count++;
            }
            exponent = point - at;
        }
        if (text[at] == 'e' || text[at] == 'E') {
            at++;
            boolean down = text[at] == '-';
            if (down || text[at] == '+') {
                at++;
            }
            int shift = 0;
            while (isDigit(text[at])) {
                shift = shift * 10 + (text[at++] - '0');
            }
            exponent += down ? -shift : shift;
        }
        if (count == 0) {
            throw wrong("no number");
        }
        if (count > MOST_DIGITS || exponent < -22 || exponent > 22) {
            return Double.parseDouble(new String(text, start, at - start, StandardCharsets.US_ASCII));
        }
        double value = exponent < 0 ? digits / TEN[-exponent] : digits * TEN[exponent];
        return negative ? -value : value;
    }

    private static boolean isDigit(byte one) {
        return one >= '0' && one <= '9';
    }

    /** Steps over a string without escapes; returns where its text begins. */
    private int skipString() {
        expect('"');
        int start = at;
        while (text[at] != '"') {
            at++;
        }
        at++;
        return start;
    }

    private boolean more(char end) {
        byte next = skipSpace();
        at++;
        if (next == ',') {
            return true;
        }
        if (next != end) {
            throw wrong("neither a comma nor an end");
        }
        return false;
    }

    private void expect(char one) {
        if (skipSpace() != one) {
            throw wrong("not the expected '" + one + "'");
        }
        at++;
    }

    private byte skipSpace() {
        while (text[at] == ' ' || text[at] == '\n' || text[at] == '\t' || text[at] == '\r') {
            at++;
        }
        return text[at];
    }

    private IllegalArgumentException wrong(String what) {
        return new IllegalArgumentException(what + " at byte " + at + " of " + new String(text, StandardCharsets.UTF_8));
    }
}
